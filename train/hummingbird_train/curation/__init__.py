"""From raw clips to a dataset worth training on: score, cut, recaption, pack, report."""
