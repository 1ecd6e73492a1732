"""How explanations look: figures, words, and one page that needs nothing else."""
