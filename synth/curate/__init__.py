"""Curation: filters, selection and quotas as SQL over the labels."""
