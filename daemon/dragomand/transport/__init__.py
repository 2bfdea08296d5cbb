"""Bytes in and out: a unix socket, stdin and stdout, memory. Nothing here knows what the bytes mean."""
