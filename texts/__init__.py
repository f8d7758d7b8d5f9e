"""What training and evaluation both ask of texts: is one like another, and what does a reasoning say."""
