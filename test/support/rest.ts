import { makeUser, type TestDatabase } from './database.js';

export interface RestAnswer {
  status: number;
  headers: Headers;
  text: string;
  // The tests look into answers of every form.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  json: any;
}

/** One request to the REST interfaces; `body` is sent as JSON. */
export async function rest(
  port: number,
  token: string | undefined,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<RestAnswer> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
  });
  const text = await response.text();
  const isJson = /^application\/(problem\+)?json\b/.test(response.headers.get('content-type') ?? '');
  return {
    status: response.status,
    headers: response.headers,
    text,
    json: isJson ? JSON.parse(text) : undefined,
  };
}

/** A user of the staff, with a token of all scopes. */
export async function makeStaff({ db }: TestDatabase): ReturnType<typeof makeUser> {
  const user = await makeUser(db);
  await db.user.update({ where: { id: user.caller.userId }, data: { staff: true } });
  return user;
}
