"""From a run to a release: lineage, audit input, facts for the cards."""
