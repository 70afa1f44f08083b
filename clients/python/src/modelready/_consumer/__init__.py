"""What the consumers of the stream are made of: options, loop, lanes, in_flight, liveness."""
