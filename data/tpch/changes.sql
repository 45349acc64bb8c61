-- Every fifth order and its lines updated, every seventh order and its lines deleted, in ways the 22 answers see.
update orders
set o_totalprice = o_totalprice + 100.00, o_orderpriority = '1-URGENT', o_comment = 'special packages requests'
where o_orderkey % 5 = 0;
update lineitem
set l_quantity = l_quantity + 1, l_discount = 0.05, l_shipmode = 'MAIL',
    l_receiptdate = cast(l_receiptdate + interval '7' day as date)
where l_orderkey in (select o_orderkey from orders where o_orderkey % 5 = 0);
delete from lineitem
where l_orderkey in (select o_orderkey from orders where o_orderkey % 7 = 0);
delete from orders
where o_orderkey % 7 = 0;
