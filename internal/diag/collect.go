package diag

import "fmt"

// MaxOfKind is how many problems of one kind a [Collector] keeps. A table with thousands of mistakes has
// one cause, and nobody reads further.
const MaxOfKind = 100

// Collector gathers problems. Of each kind, the same code in the same table, it keeps the first
// MaxOfKind and counts the others, so that its size does not grow with the input. The zero Collector is
// empty and ready to use.
type Collector struct {
	problems Problems
	count    map[kind]int
}

type kind struct {
	table, code string
	severity    Severity
}

// Add adds problems.
func (c *Collector) Add(problems ...Problem) {
	if c.count == nil {
		c.count = map[kind]int{}
	}
	for _, p := range problems {
		kind := kind{p.Table(), p.Code, p.Severity}
		if c.count[kind]++; c.count[kind] <= MaxOfKind {
			c.problems = append(c.problems, p)
		}
	}
}

// Errors returns the number of problems of severity Error, including those not kept.
func (c *Collector) Errors() int {
	errors := 0
	for kind, count := range c.count {
		if kind.severity == Error {
			errors += count
		}
	}
	return errors
}

// Problems returns the problems in the order in which they were added. A kind of which there are more
// ends with a problem of the whole table that gives the number.
func (c *Collector) Problems() Problems {
	var all Problems
	kept := map[kind]int{}
	for _, p := range c.problems {
		all = append(all, p)
		kind := kind{p.Table(), p.Code, p.Severity}
		if kept[kind]++; kept[kind] < MaxOfKind {
			continue
		}
		if more := c.count[kind] - MaxOfKind; more > 0 {
			all = append(all, Problem{rest: true, File: kind.table, Severity: kind.severity, Code: kind.code,
				Message: fmt.Sprintf("and %d more problems of this kind (%s)", more, kind.code)})
		}
	}
	return all
}
