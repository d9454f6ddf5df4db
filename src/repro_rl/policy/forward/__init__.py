"""What sampling and training compute alike: forward passes over token trees and padded rows."""
