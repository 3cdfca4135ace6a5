"""Persona: who the student says it is."""
