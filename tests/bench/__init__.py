"""Tests of the benchmark: that its machinery works, at tiny sizes. No figure is judged here."""
