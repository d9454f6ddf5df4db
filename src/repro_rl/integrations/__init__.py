"""Other people's trainers, through their own extension points."""
