"""The microkernel: messages, wire, topics, transport, clocks, the node contract, health and the executors."""
