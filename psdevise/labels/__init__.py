"""Classes and what is known about them: terms, word vectors, the is-a graph, which are seen and unseen."""
