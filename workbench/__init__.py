"""What people see and keep: specs, worker, recorder, store, figures, reports, command line."""
