"""`atp-eval bench`: what a model costs in time and memory under pruning, measured without weights at true geometry."""
