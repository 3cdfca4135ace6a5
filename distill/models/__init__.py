"""Base folders and tokens: messages -> token ids and loss mask."""
