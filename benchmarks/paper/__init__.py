"""`make paper`: the tables of the SOP paper (arXiv 2601.03044), on a simulated fleet through the real pipeline."""
