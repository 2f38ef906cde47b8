// What the server says, by the names the page uses. The shapes are the server's own description, `schema.d.ts`.
import type { components } from './schema';

type Of<Name extends keyof components['schemas']> = components['schemas'][Name];

export type Outcome = Of<'Outcome'>;
export type Series = Of<'Series'>;
export type Session = Of<'Session'>;
export type Status = Of<'Status'>;
export type Totals = Of<'Totals'>;
export type Finding = Of<'Finding'>;
export type Change = Of<'Change'>;
export type ServiceRow = Of<'ServiceRow'>;
export type Services = Of<'Services'>;
export type Overview = Of<'Overview'>;
export type RequestRow = Of<'RequestRow'>;
export type SearchPage = Of<'SearchPage'>;
export type TermCount = Of<'TermCount'>;
export type Facet = Of<'Facet'>;
export type Facets = Of<'Facets'>;
export type Stage = Of<'Stage'>;
export type RequestRecord = Of<'RequestRecord'>;
export type RequestDetail = Of<'RequestDetail'>;
export type Peer = Of<'Peer'>;
export type ServiceDetail = Of<'ServiceDetail'>;
export type VersionRow = Of<'VersionRow'>;
export type Suggestion = Of<'Suggestion'>;
export type Suggestions = Of<'Suggestions'>;
export type LiveStatus = Of<'LiveStatus'>;
