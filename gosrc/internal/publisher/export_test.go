package publisher

// SetMarkForTest changes the mark that values are held against.
func (c *Client) SetMarkForTest(change func(*Mark)) { change(&c.mark) }

// PIDForTest is the server process of the first session.
func (c *Client) PIDForTest() uint32 { return c.first.session.Conn().PgConn().PID() }
