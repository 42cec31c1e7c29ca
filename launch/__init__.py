"""Launch files, the graph, the supervisor and the command line: the only place that knows all."""
