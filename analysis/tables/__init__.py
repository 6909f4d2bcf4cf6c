"""Tables as records: the page, the terminal and the CSV files are made from the same cells."""
