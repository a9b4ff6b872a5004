"""What happens to a connection: who the client is, which backend it gets, how the session runs."""
