import { AppError } from '@longhaul/errors';

// What can be wrong with an artifact, told the same way wherever it shows.

/** Foreign and absent are the same. */
export const artifactNotFound = () =>
  new AppError('artifact_not_found', 'You have no artifact of that id, or it has been deleted.');

export const artifactExpired = () =>
  new AppError('artifact_expired', 'Its time is over. create_artifact_upload announces a new one.');

export const notUploaded = () =>
  new AppError(
    'artifact_not_uploaded',
    'The file has not been uploaded. Send it to the address, then go on.',
  );

export const sizeMismatch = (expected: number, found?: number) =>
  new AppError('artifact_size_mismatch', `The file must have the ${expected} bytes that were announced.`, {
    expected_bytes: expected,
    ...(found !== undefined && { found_bytes: found }),
  });

export const shaMismatch = () =>
  new AppError('artifact_sha_mismatch', 'The file does not have the SHA-256 that was announced.');
