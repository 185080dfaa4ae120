"""What a user wrote: typed, validated when it is loaded, frozen. No Spark."""
