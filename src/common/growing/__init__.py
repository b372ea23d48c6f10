"""Growing small pre-trained networks and training them on: the tasks, the candidates, what foretells the gain."""
