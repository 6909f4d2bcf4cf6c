"""What two experiments need."""
