"""What the product promises in figures, measured. ``make bench`` runs it and writes ``bench/RESULTS.md``."""
