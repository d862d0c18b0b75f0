"""One address through the page tables."""
