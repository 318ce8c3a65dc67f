"""The transports: what a connection to a channel's URL can be."""
