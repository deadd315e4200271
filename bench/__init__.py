"""The benchmark: vspcd beside other console servers and the bare relay that is the limit. See bench/README.md."""
