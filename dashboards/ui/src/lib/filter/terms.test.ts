import { describe, expect, test } from 'vitest';
import { add, asksForStopped, exactly, has, join, parse, quote, remove, shortKey, toggle, write } from './terms';

describe('parse', () => {
  test.each([
    ['status:>=400', { key: 'status', operator: '>=', values: ['400'], negated: false }],
    ['status:4xx', { key: 'status', operator: '=', values: ['4xx'], negated: false }],
    ['-route:/healthz', { key: 'route', operator: '=', values: ['/healthz'], negated: true }],
    ['reason:scope_missing,role_missing', { key: 'reason', operator: '=', values: ['scope_missing', 'role_missing'], negated: false }],
    ['dur:>200ms', { key: 'dur', operator: '>', values: ['200ms'], negated: false }],
    ['"no scope"', { key: '', operator: '=', values: ['no scope'], negated: false }],
    ['-"no scope"', { key: '', operator: '=', values: ['no scope'], negated: true }],
    ['POL-1042', { key: '', operator: '=', values: ['POL-1042'], negated: false }],
    ['user_agent.original:"a b"', { key: 'user_agent.original', operator: '=', values: ['a b'], negated: false }],
    ['caller:"a,b",c', { key: 'caller', operator: '=', values: ['a,b', 'c'], negated: false }],
    ['https://issuer.test', { key: '', operator: '=', values: ['https://issuer.test'], negated: false }],
    ['tollgate.token.issuer:https://issuer.test', { key: 'tollgate.token.issuer', operator: '=', values: ['https://issuer.test'], negated: false }],
    ['-', { key: '', operator: '=', values: ['-'], negated: false }],
  ])('%s', (text, expected) => {
    expect(parse(text)).toEqual([{ raw: text, ...expected }]);
  });

  test.each([
    ['', []],
    ['   ', []],
    ['a  b', ['a', 'b']],
    ['status:403 "two words" -x:y', ['status:403', '"two words"', '-x:y']],
    ['"open to the end', ['"open to the end"']],
    ['"say \\"hi\\" now" b', ['"say \\"hi\\" now"', 'b']],
  ])('splits %j', (text, raws) => {
    expect(parse(text).map((t) => t.raw)).toEqual(raws);
  });

  test('joining what was parsed changes nothing but blanks', () => {
    const text = 'status:>=400 -route:/healthz "a b" caller:"x y",z';
    expect(join(parse(text))).toBe(text);
  });
});

describe('edit', () => {
  test.each([
    ['', 'status:403', 'status:403'],
    ['status:403', 'status:403', 'status:403'],
    ['status:403', 'reason:ok caller:reader', 'status:403 reason:ok caller:reader'],
    ['', 'bare', '"bare"'],
    ['"bare"', 'bare', '"bare"'],
  ])('add(%j, %j)', (text, typed, expected) => expect(add(text, typed)).toBe(expected));

  test('remove', () => expect(remove('a:1 b:2 c:3', 'b:2')).toBe('a:1 c:3'));

  test.each([
    ['', 'reason', 'x', 'reason:x'],
    ['reason:x', 'reason', 'y', 'reason:x,y'],
    ['reason:x,y', 'reason', 'x', 'reason:y'],
    ['reason:x', 'reason', 'x', ''],
    ['-reason:x', 'reason', 'x', '-reason:x reason:x'],
    ['status:>=400', 'status', '403', 'status:>=400 status:403'],
    ['', 'route', 'a b', 'route:"a b"'],
  ])('toggle(%j, %s, %s)', (text, key, value, expected) => expect(toggle(text, key, value)).toBe(expected));

  test('has', () => {
    expect(has('reason:x,y', 'reason', 'y')).toBe(true);
    expect(has('-reason:y', 'reason', 'y')).toBe(false);
    expect(has('status:>400', 'status', '400')).toBe(false);
  });

  test('exactly uses the short key', () => {
    expect(exactly('tollgate.reason', 'scope_missing')).toBe('reason:scope_missing');
    expect(exactly('client.address', '198.51.100.24', true)).toBe('-client.address:198.51.100.24');
    expect(shortKey('http.route')).toBe('route');
    // The caller is worked out from several attributes; one of them alone is not the same question.
    expect(exactly('enduser.id', 'reader')).toBe('enduser.id:reader');
  });

  test.each([
    ['plain', 'plain'],
    ['a b', '"a b"'],
    ['', '""'],
    ['say "hi"', '"say \\"hi\\""'],
    ['>5', '">5"'],
  ])('quote(%j)', (value, expected) => expect(quote(value)).toBe(expected));

  test('write', () => {
    expect(write({ negated: true, key: 'dur', operator: '>=', values: ['5ms'] })).toBe('-dur:>=5ms');
  });
});

test.each([
  ['', false],
  ['status:>=400', true],
  ['status:4xx', true],
  ['status:200', false],
  ['status:403,200', false],
  ['-status:403', false],
  ['reason:scope_missing', true],
  ['reason:ok', false],
  ['outcome:denied,limited', true],
  ['outcome:passed,denied', false],
  ['dest:policies', false],
  ['dest:policies outcome:denied', true],
])('asksForStopped(%j)', (text, expected) => expect(asksForStopped(text)).toBe(expected));
