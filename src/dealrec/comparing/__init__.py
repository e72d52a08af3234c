"""The comparison of methods: replicates of one run with an arm for each method, read into one table."""
