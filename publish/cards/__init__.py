"""Model card and data card, from `ReleaseFacts`."""
