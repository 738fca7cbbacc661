import { AppError, redact, redactText, toAppError } from './index.js';

describe('toAppError', () => {
  it('lets ours pass and hides any other behind an error id', () => {
    const ours = new AppError('vm_not_found', 'No such VM.');
    expect(toAppError(ours)).toBe(ours);
    const hidden = toAppError(new Error('connect postgres://user:pw@host'));
    expect(hidden.toBody()).toMatchObject({
      code: 'internal',
      retryable: true,
      details: { error_id: expect.any(String) },
    });
    expect(JSON.stringify(hidden.toBody())).not.toContain('pw@host');
    expect((hidden.cause as Error).message).toContain('pw@host');
  });

  it.each([
    Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }),
    Object.assign(new Error('the database system is starting up'), { code: '57P03' }),
    Object.assign(new Error('deadlock detected'), { code: '40P01' }),
    Object.assign(new Error('Server has closed the connection.'), { code: 'P1017' }),
    Object.assign(new Error('Raw query failed. Code: `57P01`. Message: `terminating`'), { code: 'P2010' }),
    new Error('timeout exceeded when trying to connect'),
    Object.assign(
      new Error("Raw query failed. Code: `N/A`. Message: `Can't reach database server at 127.0.0.1:1`"),
      {
        code: 'P2010',
      },
    ),
    new Error('Connection terminated unexpectedly'),
    Object.assign(new Error('UnknownError'), { $metadata: { httpStatusCode: 503 } }),
    Object.assign(new Error('The operation was aborted due to timeout'), { name: 'TimeoutError' }),
  ])('says of a server that is away that it is: %s', (error) => {
    expect(toAppError(error)).toMatchObject({ code: 'unavailable', cause: error });
  });

  it.each([
    Object.assign(new Error('Raw query failed. Code: `23505`. Message: `duplicate key 57P01`'), {
      code: 'P2010',
    }),
    Object.assign(new Error('no such file'), { code: 'ENOENT' }),
    Object.assign(new Error('AccessDenied'), { $metadata: { httpStatusCode: 403 } }),
    'ECONNRESET',
  ])('takes no other error for one of these: %s', (error) => {
    expect(toAppError(error)).toMatchObject({ code: 'internal' });
  });
});

describe('redact', () => {
  it('replaces secrets by their key and by their look', () => {
    const token = `lh_${'x'.repeat(43)}`;
    expect(
      redact({
        password: 'p',
        nested: [{ apiToken: 't' }],
        text: `curl -H "Authorization: Bearer abc" ${token}`,
      }),
    ).toEqual({
      password: '[redacted]',
      nested: [{ apiToken: '[redacted]' }],
      text: 'curl -H "Authorization: Bearer [redacted]" lh_xxxxxxxx[redacted]',
    });
    expect(redactText('https://s3/x?X-Amz-Signature=abc&y=1')).toBe(
      'https://s3/x?X-Amz-Signature=[redacted]&y=1',
    );
  });

  it('cuts what is long, wide or deep, and makes it fit for jsonb', () => {
    const deep = { a: { b: { c: { d: { e: { f: { g: 1 } } } } } } };
    expect(JSON.stringify(redact(deep))).toContain('[deeper]');
    expect(redact(Array.from({ length: 60 }, () => 1))).toHaveLength(51);
    expect(redact('y'.repeat(2000))).toMatch(/^y{1024}\[976 more characters\]$/);
    expect(redact('a\0b\ud800')).toBe('a\uFFFDb\uFFFD');
    expect(redact(12n)).toBe('12');
  });
});
