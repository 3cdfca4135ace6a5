"""From a trained student to a folder that can be released: merge, template, card, package, checksums."""
