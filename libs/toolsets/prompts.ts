import type { PromptDefinition } from '@longhaul/mcp';

/** Every prompt, for the jobs that people ask for most. */
export const prompts: readonly PromptDefinition[] = [
  {
    name: 'run_and_watch',
    title: 'Run a command and watch it',
    description: 'Starts a long command on a VM and reports its output while it runs',
    arguments: { vm: 'Id, hostname or unique prefix of the VM', command: 'The shell command' },
    messages: ({ vm, command }) =>
      `Run this command on the VM ${vm} with start_vm_command, and send an idempotency_key:

${command}

Then read its output with read_vm_command_logs, each time from next_stdout_offset and next_stderr_offset, and tell me what is new. Stop when both stdout_eof and stderr_eof are true, and report the final status and exit code. If the status is unknown, look at the VM before you suggest running it again.`,
  },
  {
    name: 'diagnose_vm',
    title: 'Find out what is wrong with a VM',
    description: 'Looks at a VM, its recent jobs and its system, without changing anything',
    arguments: { vm: 'Id, hostname or unique prefix of the VM', symptom: 'What was noticed' },
    messages: ({ vm, symptom }) =>
      `Something is wrong with the VM ${vm}: ${symptom}

Find out why, without changing anything. Look at get_vm and at list_jobs of this VM, read the logs of jobs that failed, then look inside with exec_vm_command (load, memory, disks, processes, kernel messages, services). Say what you found, what the most likely cause is, and what you would do about it; do nothing of that yet.`,
  },
  {
    name: 'deploy_and_verify',
    title: 'Deploy on a VM and verify it',
    description: 'Carries out a deployment step by step and proves that it works',
    arguments: { vm: 'Id, hostname or unique prefix of the VM', what: 'What is to be deployed, and how' },
    messages: ({ vm, what }) =>
      `Deploy this on the VM ${vm}:

${what}

First look at what is there and say in a few lines what you will do. Use start_vm_command for every step that may take over a minute and follow its output to the end; a step whose exit code is not 0 ends the deployment. At the end prove that it works with a check of your own from inside the VM, and show me its output.`,
  },
];
