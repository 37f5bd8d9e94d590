"""OSTree: a store by content that can forget."""
