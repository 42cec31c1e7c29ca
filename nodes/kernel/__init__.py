"""The microkernel: messages, wire, topics, transport, clocks, the node contract and executors."""
