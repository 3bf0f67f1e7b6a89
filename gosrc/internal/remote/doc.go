// Package remote has sessions on other servers: they are opened when they are used, every use is bounded in time, and one that
// is in doubt is closed. Errors come out in a form that can be shown.
package remote
