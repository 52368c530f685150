"""ModelCache's protocol: its REST and WebSocket interface, for clients that are not to be changed."""
