"""Small things that everything uses: errors, whole files, progress bars, the cache of finished steps, processes."""
