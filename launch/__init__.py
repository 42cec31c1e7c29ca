"""Launch files, the graph, the supervisor and the command line: the only folder that knows who exists."""
