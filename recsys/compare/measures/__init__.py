"""What is compared: values of cases, users, cost, slices."""
