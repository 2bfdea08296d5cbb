"""JSON-RPC without a domain: connections, their lanes and outboxes. A method's name is an opaque string."""
