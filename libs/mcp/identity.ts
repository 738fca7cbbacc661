/** How the server introduces itself. */
export const SERVER_INFO = { name: 'longhaul', title: 'Longhaul', version: '0.1.0' };

/** What every client reads once, before any tool's description. Kept under 200 words. */
export const INSTRUCTIONS = `Longhaul runs long work on virtual machines. Work is a job: it is durable, goes on when you disconnect, and is polled.

Find a VM with list_vms; every tool takes its id, exact hostname or a unique prefix as vm_id.

For commands of up to a minute use exec_vm_command. For longer ones use start_vm_command: it answers a command_id at once. Read output with read_vm_command_logs, starting at offset 0 and passing next_stdout_offset and next_stderr_offset back each time. Stop when status is final and both stdout_eof and stderr_eof are true. To wait without reading use wait_for_job with the command_id as job_id. get_vm_command_output shows the ends of the output.

Final statuses are succeeded, failed, timed_out, cancelled and unknown. failed with an exit_code is the command's own answer. unknown means the VM was reset under it: look before running it again.

A VM runs one command at a time by default. Send an idempotency_key with anything that makes a job, so that a retry cannot make it twice. Errors are JSON: code, message (what to do), retryable, details.`;
