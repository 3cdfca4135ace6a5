"""Prompts, teachers, sampling, verification, curation: everything between a problem and a trace worth training on."""
