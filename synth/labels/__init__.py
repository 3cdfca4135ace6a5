"""Labels: what is measured on every trace before anything is selected."""
