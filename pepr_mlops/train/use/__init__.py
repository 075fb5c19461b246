"""Trained models: kept, loaded, exported, asked for predictions, and what using them costs."""
