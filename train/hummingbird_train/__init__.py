"""The training side: models, the tiny world, and the loops that train what the package ships."""
