"""Real servers, real sockets, real kills: what the integration and chaos tests are made of. Loopback only."""
