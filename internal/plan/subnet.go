package plan

import (
	"fmt"
	"net/netip"
	"slices"
)

type addressed struct {
	row     row
	address netip.Addr
}

// checkSubnet checks all static addresses against the subnet, if gateway and netmask are right.
func (l *loader) checkSubnet() {
	subnet, gateway := l.plan.Network.Subnet, l.plan.Network.Gateway
	if !subnet.IsValid() || len(l.addressed) == 0 {
		return
	}
	if !slices.ContainsFunc(l.addressed, func(a addressed) bool { return subnet.Contains(a.address) }) {
		l.network.report(l.network.line("gateway"), "gateway", gateway.String(), finding{"gateway-invalid",
			fmt.Sprintf("no address of the plan is in the subnet of the gateway, %s", subnet),
			fmt.Sprintf("correct gateway or netmask; the first address of the plan is %s", l.addressed[0].address)})
		return
	}
	for _, a := range l.addressed {
		column := "ip"
		switch {
		case !subnet.Contains(a.address):
			a.row.Fail(column, a.row.Raw(column), "address-outside-subnet", fmt.Sprintf("not in the subnet %s", subnet),
				"gateway and netmask in "+l.network.file+" define the subnet")
		case a.address == gateway:
			a.row.Fail(column, a.row.Raw(column), "address-reserved", "the address of the gateway", "")
		case a.address == subnet.Addr():
			a.row.Fail(column, a.row.Raw(column), "address-reserved", fmt.Sprintf("the address of the network %s itself", subnet), "")
		case a.address == lastAddress(subnet):
			a.row.Fail(column, a.row.Raw(column), "address-reserved", fmt.Sprintf("the broadcast address of %s", subnet), "")
		}
	}
}
